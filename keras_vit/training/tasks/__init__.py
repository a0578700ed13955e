"""What a run learns: losses, distillation, masked autoencoding, heads on frozen features."""
