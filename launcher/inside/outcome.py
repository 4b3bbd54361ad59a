"""Names that a rank and what judges it agree on."""

OUTCOME = "outcome.json"
"""What rank 0 leaves beside the notes of failures, where it did not fail."""
