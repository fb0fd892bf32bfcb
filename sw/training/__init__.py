"""Training networks to low-bit weights and activations."""
