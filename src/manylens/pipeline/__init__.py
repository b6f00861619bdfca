"""From images and interests to clusterings: the stages in their order, what they may spend, what they found."""

from manylens.pipeline.run import cluster_images, cluster_looks

__all__ = ["cluster_images", "cluster_looks"]
