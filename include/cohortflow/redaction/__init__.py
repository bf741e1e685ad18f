"""De-identification by allow-list: PHI classes, policies, kernels."""
