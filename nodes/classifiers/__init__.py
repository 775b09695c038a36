"""Any image classifier behind one interface, and the gradient of its score, in ComfyUI's sampling."""
