"""What every task needs: the deployment at hand, what was observed of its servers, ways to act."""
