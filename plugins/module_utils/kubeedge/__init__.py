# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""KubeEdge: certificates signed on the controller, what goes together, and why a node does not join."""
