"""The embedded example: ten generated people, one network trained three ways, compared."""
