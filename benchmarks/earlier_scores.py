"""Inputs of Guidance Score for the methods before the papers'."""

# Plain classifier guidance, https://arxiv.org/abs/2105.05233: log p.
PLAIN = {"divergence": "none", "joint_temperature": 1.0, "marginal_temperature": 1.0, "softplus_beta": 0.0}
# Off-the-shelf classifiers, https://arxiv.org/abs/2310.11311.
MA2023 = {"divergence": "none", "joint_temperature": 1.0, "marginal_temperature": 0.5, "softplus_beta": 3.0}
