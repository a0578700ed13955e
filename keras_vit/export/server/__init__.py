"""Files for TF Serving: configuration, requests for warm-up, memory."""
