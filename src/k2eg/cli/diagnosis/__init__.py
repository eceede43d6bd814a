"""The checks of ``k2eg doctor``."""
