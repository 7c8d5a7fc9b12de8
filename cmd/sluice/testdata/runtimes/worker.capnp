using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "pictures", worker = .pictures)],
  sockets = [(name = "http", http = (), service = "pictures")]
);

const pictures :Workerd.Worker = (
  modules = [(name = "worker.mjs", esModule = embed "worker.mjs")],
  compatibilityDate = "2026-01-01"
);
