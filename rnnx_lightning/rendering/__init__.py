"""Pictures of sequences and of relevance."""
