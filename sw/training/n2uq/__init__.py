"""N2UQ: activations by learned thresholds, evenly spaced levels, weights of odd levels (Liu et al., arXiv 2111.14826)."""
