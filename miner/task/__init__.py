"""Tasks: their stages, the ledger, the journal that survives restarts, policy and errors."""
