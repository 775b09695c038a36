"""What nodes of several wings share, an idea a file."""
