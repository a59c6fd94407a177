"""What every task needs: the deployment at hand, and what was observed of its servers."""
