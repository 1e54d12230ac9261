"""Recognition over HTTP: who may ask what, how requests share a model and a gallery, and what an answer shows."""
