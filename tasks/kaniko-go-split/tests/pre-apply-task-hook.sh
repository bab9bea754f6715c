#!/usr/bin/env bash

# The registry of the test.
kubectl -n "${tns}" create deployment registry --image=docker.io/library/registry:2 --port=5000
kubectl -n "${tns}" expose deployment registry
kubectl -n "${tns}" rollout status deployment registry --timeout=180s
