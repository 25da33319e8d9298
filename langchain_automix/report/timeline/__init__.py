"""What a mix that learns does over time: figures, and a page, Markdown and plots of them."""
