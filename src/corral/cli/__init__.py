"""TODO glossary."""
