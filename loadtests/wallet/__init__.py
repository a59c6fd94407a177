"""The wallet model: wallets, their actions, and the users that act."""
