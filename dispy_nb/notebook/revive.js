// anywidget gives up a model that is not ready after 2 s, as while a page loads on a busy machine:
// it is shown, but whatever the kernel sends to it is dropped from then on, without a word.
async function revive(model) {
  try {
    const real = await model.widget_manager.get_model(model.get("own_id"));
    try {
      await real._handle_comm_msg({ content: { data: {} } }); // says nothing, and so does nothing
    } catch {
      const handle = Object.getPrototypeOf(Object.getPrototypeOf(real))._handle_comm_msg;
      real._handle_comm_msg = handle; // of ipywidgets
      real.comm.on_msg((message) => handle.call(real, message));
      real.comm.send({ method: "request_state" }, real.callbacks()); // what was missed
    }
  } catch (error) {
    console.warn("dispy: it is not known whether this view is kept up to date:", error);
  }
}

