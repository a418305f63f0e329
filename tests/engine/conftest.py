from small_model import encoded, network, network_of, schema

__all__ = ["encoded", "network", "network_of", "schema"]
