"""Deploy tasks: one noun per file, each public function an idempotent pyinfra @deploy.

``deploy.py`` lists them in order; each can also be run alone:
``pyinfra INVENTORY tasks.replica.stop``. Checks raise before anything is changed; changes are
operations that do nothing where their work is done already.
"""
