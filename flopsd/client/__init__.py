"""The API for training processes: declare the phase, what is trained and how, and the work done.

    client = flopsd.client.connect()
    client.declare(method="lora", model_config=model.config.to_dict())
    client.set_phase("train")
    client.count("train", tokens=batch.numel(), sequences=len(batch), steps=1)
    with client.phase("evaluate"):
        ...

No call raises an error in the training or waits for the daemon. A call changes the state of the client; its background
thread sends that to the daemon, and sends all of it again after the daemon was restarted. Without a daemon, calls have
no effect. An invalid call is logged once, by the logger `flopsd.client`, and ignored.
"""

from flopsd.client.client import Client, connect

__all__ = ["Client", "connect"]
