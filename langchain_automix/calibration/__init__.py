"""From examples to a routing log: run the models, grade their answers."""
