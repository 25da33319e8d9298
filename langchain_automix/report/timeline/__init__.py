"""What a mix that learns does over time: figures, as a page, Markdown and plots."""
