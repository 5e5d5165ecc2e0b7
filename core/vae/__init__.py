"""The variational autoencoder: prior, network, objective, bound and likelihood."""
