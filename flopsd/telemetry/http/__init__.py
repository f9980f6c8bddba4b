"""The HTTP front: `server` keeps connections, `request` reads them, `pages` answers, `access` says who may ask."""
