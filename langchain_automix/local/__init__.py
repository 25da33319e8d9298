"""The main job on real models: what `automix demo` and `automix ask` run."""
