"""AWS Neuron: what neuron-monitor streams, what the driver's sysfs tree shows. `source` joins them."""

INSTALL = (
    "on Trainium and Inferentia install aws-neuronx-tools; "
    "in a container mount /opt/aws/neuron and give it /dev/neuron*"
)
