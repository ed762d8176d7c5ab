"""What a task is and where it stands: its stages, the journal that outlives the process, what each error means."""
