"""What a classifier is shown of example pictures while it is measured and fine-tuned, and what is drawn of that."""
