// SPDX-License-Identifier: Apache-2.0
#include "graph/graph_context.h"

#include <utility>

namespace nestling {

Status XnnStatus(xnn_status status, const char* what) {
  switch (status) {
    case xnn_status_success:
      return OkStatus();
    case xnn_status_out_of_memory:
      return OutOfMemory("XNNPACK: no memory to ", what);
    case xnn_status_unsupported_hardware:
    case xnn_status_unsupported_parameter:
      return Unsupported("XNNPACK cannot ", what, " on this CPU");
    default:
      return Internal("XNNPACK failed to ", what, ", status ", static_cast<int>(status));
  }
}

Result<std::unique_ptr<GraphContext>> GraphContext::Create(const ThreadPool& pool,
                                                           std::unique_ptr<PackedWeights> packed) {
  // The one global state of the library; XNNPACK makes it once, whoever asks first.
  RETURN_IF_ERROR(XnnStatus(xnn_initialize(/*allocator=*/nullptr), "initialise"));
  if (packed == nullptr) packed = std::make_unique<PackedWeights>();
  std::unique_ptr<GraphContext> context(new GraphContext(pool, std::move(packed)));
  RETURN_IF_ERROR(XnnStatus(xnn_create_workspace(&context->workspace_), "create a workspace"));
  return context;
}

GraphContext::~GraphContext() {
  if (workspace_ != nullptr) xnn_release_workspace(workspace_);
}

}  // namespace nestling
