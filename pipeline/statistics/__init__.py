"""Statistics of a study, made with pandas from its fits and traces."""
