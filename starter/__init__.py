"""The embedded starter model, the studio that draws its images, and its training script."""
