"""Makes the generated pages, the pictures and `llms.txt` of the site."""
