"""Files that come from outside or go there: inputs are fetched and cleaned, results converted and uploaded."""
