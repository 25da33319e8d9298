"""The site: its pages, and what makes and checks them (`docs.tooling`)."""
