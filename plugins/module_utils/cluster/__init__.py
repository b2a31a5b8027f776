# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Clusters of devices: what a node of K3s needs, has and lacks. Device code: Python 3.9, standard library."""
