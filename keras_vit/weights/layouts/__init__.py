"""The key schemes of the sources: rules from their arrays to our variables and back."""
