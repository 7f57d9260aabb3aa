"""adsq: learn and search binary codes."""
