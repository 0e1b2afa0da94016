#include "hiss.h"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "hiss/v1/errors.pb.h"

namespace hiss {

namespace {

constexpr int kMessageBytesMax = 257 << 20;  // a block of 256 MiB, and its vectors

}  // namespace

void check(const grpc::Status& status, const grpc::ClientContext& context) {
  if (status.ok()) return;
  const auto& trailing = context.GetServerTrailingMetadata();
  v1::ErrorDetail detail;
  if (auto found = trailing.find("hiss-error-bin"); found != trailing.end())
    detail.ParseFromArray(found->second.data(), static_cast<int>(found->second.size()));
  throw Error(status.error_code(), detail.name(), detail.message().empty() ? status.error_message() : detail.message());
}

Connection::Connection(const std::string& address, std::string token) : token_(std::move(token)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);  // as the server allows
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  streams = v1::Streams::NewStub(channel);
  collections = v1::Collections::NewStub(channel);
}

void Connection::prepare(grpc::ClientContext& context) const {
  if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  context.set_wait_for_ready(false);
}

v1::Stream Connection::create_stream(const std::string& collection, const std::string& name,
                                     const v1::StreamSpec& spec) {
  {
    grpc::ClientContext context;
    prepare(context);
    v1::CreateCollectionRequest request;
    request.set_path(collection);
    v1::CreateCollectionResponse response;
    check(collections->CreateCollection(&context, request, &response), context);
  }
  grpc::ClientContext context;
  prepare(context);
  v1::CreateStreamRequest request;
  request.set_collection(collection);
  request.set_name(name);
  *request.mutable_spec() = spec;
  request.set_resume(true);
  v1::CreateStreamResponse response;
  check(streams->CreateStream(&context, request, &response), context);
  return response.stream();
}

v1::Stream Connection::get_stream(const std::string& path) {
  grpc::ClientContext context;
  prepare(context);
  v1::GetStreamRequest request;
  request.set_path(path);
  v1::GetStreamResponse response;
  check(streams->GetStream(&context, request, &response), context);
  return response.stream();
}

v1::Stream Connection::seal_stream(const std::string& id) {
  grpc::ClientContext context;
  prepare(context);
  v1::SealStreamRequest request;
  request.set_stream_id(id);
  v1::SealStreamResponse response;
  check(streams->SealStream(&context, request, &response), context);
  return response.stream();
}

void Connection::read(const std::string& id, const std::function<void(const v1::Extent&)>& take) {
  grpc::ClientContext context;
  prepare(context);
  v1::ReadRequest request;
  request.set_stream_id(id);
  request.mutable_selection();
  auto call = streams->Read(&context, request);
  v1::ReadResponse response;
  while (call->Read(&response)) {
    check_digests(response.extent());
    take(response.extent());
  }
  check(call->Finish(), context);
}

Append::Append(Connection& connection, const std::string& stream_id) {
  connection.prepare(context_);
  call_ = connection.streams->Append(&context_);
  v1::AppendRequest request;
  request.mutable_open()->set_stream_id(stream_id);
  v1::AppendResponse response;
  if (!call_->Write(request) || !call_->Read(&response)) fail();
  start_ = response.start();
  credit_ = start_.credit_bytes();
  listener_ = std::thread(&Append::listen, this);
}

Append::~Append() {
  context_.TryCancel();
  if (listener_.joinable()) listener_.join();
  if (!finished_) call_->Finish();
}

bool Append::handled(std::int64_t index) const {
  return index < start_.next_index() &&
         std::none_of(start_.gaps().begin(), start_.gaps().end(),
                      [index](const auto& gap) { return gap.first() <= index && index <= gap.last(); });
}

void Append::send(v1::Extent&& extent) {
  const auto size = static_cast<std::int64_t>(extent.data().size());
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return over_ || on_way_.empty() || on_way_bytes_ + size <= credit_; });
    sent_ += extent.index_size();
    on_way_.emplace_back(sent_, size);
    on_way_bytes_ += size;
  }
  v1::AppendRequest request;
  *request.mutable_extent() = std::move(extent);
  if (!call_->Write(request)) fail();
}

v1::Ack Append::finish() {
  call_->WritesDone();
  listener_.join();
  finished_ = true;
  check(call_->Finish(), context_);
  return ack_;
}

void Append::listen() {
  v1::AppendResponse response;
  while (call_->Read(&response)) {
    if (!response.has_ack()) continue;  // feedback: this producer has no ear for it
    std::lock_guard lock(mutex_);
    ack_ = response.ack();
    credit_ = ack_.credit_bytes();
    const auto done = start_.credit_level() == v1::ACK_LEVEL_RECEIVED  ? ack_.received()
                      : start_.credit_level() == v1::ACK_LEVEL_WRITTEN ? ack_.written()
                                                                       : ack_.durable();
    auto first = on_way_.begin();
    for (; first != on_way_.end() && first->first <= done; ++first) on_way_bytes_ -= first->second;
    on_way_.erase(on_way_.begin(), first);
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

// The call is over: says why.
void Append::fail() {
  if (listener_.joinable()) listener_.join();
  finished_ = true;
  check(call_->Finish(), context_);
  throw Error(grpc::StatusCode::UNAVAILABLE, "", "the server ended the append before its producer did");
}

void add_block(v1::Extent& extent, std::int64_t index, std::int64_t time_ns, const void* data, std::size_t size) {
  extent.add_index(index);
  extent.add_time_ns(time_ns);
  extent.add_length(static_cast<std::uint32_t>(size));
  extent.add_digest(XXH3_64bits(data, size));
  extent.mutable_data()->append(static_cast<const char*>(data), size);
}

void check_digests(const v1::Extent& extent) {
  const char* data = extent.data().data();
  for (int n = 0; n < extent.index_size(); ++n) {
    if (XXH3_64bits(data, extent.length(n)) != extent.digest(n))
      throw Error(grpc::StatusCode::DATA_LOSS, "BlockDamaged",
                  "block " + std::to_string(extent.index(n)) + " came with a wrong digest");
    data += extent.length(n);
  }
}

}  // namespace hiss
