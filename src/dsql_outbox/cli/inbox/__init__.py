"""The command `inbox`: forget old messages of a consumer's inbox."""
