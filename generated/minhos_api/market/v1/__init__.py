"""Made from proto/ by scripts/generate. Never edited by hand."""
