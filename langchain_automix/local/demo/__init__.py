"""The demo: its questions, its recording, its run and its summary."""
