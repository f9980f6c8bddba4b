"""AWS Neuron: what neuron-monitor streams, what the driver's sysfs tree shows. `flopsd.sources.neuron` joins them."""
