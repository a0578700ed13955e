"""Training objectives: losses, distillation, masked autoencoding, linear heads on frozen features."""
