"""The main job on real models: the code behind `automix demo` and `automix ask`."""
