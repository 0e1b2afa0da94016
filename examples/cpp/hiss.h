// A producer and a consumer of hiss in C++: generated code from proto/, and what docs/wire.md says of how calls behave.
//
// A `Connection` makes calls from any thread. An `Append` is one producer's session and is used by one thread; a thread
// of its own takes acknowledgements.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "hiss/v1/collections.grpc.pb.h"
#include "hiss/v1/streams.grpc.pb.h"

namespace hiss {

// A call that failed: its status code, and the name of hiss's error where there is one.
struct Error : std::runtime_error {
  Error(grpc::StatusCode code, std::string name, const std::string& text)
      : std::runtime_error(text), code(code), name(std::move(name)) {}
  // Whether to connect again, ask where the stream stands, and send the rest.
  bool may_go_on() const { return code == grpc::StatusCode::UNAVAILABLE; }
  grpc::StatusCode code;
  std::string name;
};

// Raises what a call ended with, unless it is OK.
void check(const grpc::Status& status, const grpc::ClientContext& context);

class Connection {
 public:
  Connection(const std::string& address, std::string token);
  // Metadata that every call carries.
  void prepare(grpc::ClientContext& context) const;
  v1::Stream create_stream(const std::string& collection, const std::string& name, const v1::StreamSpec& spec);
  v1::Stream get_stream(const std::string& path);
  v1::Stream seal_stream(const std::string& id);
  // Calls `take` with each extent of a stream, in the order of its indices.
  void read(const std::string& id, const std::function<void(const v1::Extent&)>& take);

  std::unique_ptr<v1::Streams::Stub> streams;
  std::unique_ptr<v1::Collections::Stub> collections;

 private:
  std::string token_;
};

// One producer's session, from its start to its end.
class Append {
 public:
  Append(Connection& connection, const std::string& stream_id);
  ~Append();
  Append(const Append&) = delete;
  Append& operator=(const Append&) = delete;

  // Whether the server has dealt with a block of this index before.
  bool handled(std::int64_t index) const;
  // Sends an extent; waits while more than the server's credit is not acknowledged. Takes the extent's memory.
  void send(v1::Extent&& extent);
  // Asks the server to finish, and returns when all that was sent is acknowledged.
  v1::Ack finish();

 private:
  void listen();
  [[noreturn]] void fail();

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AppendRequest, v1::AppendResponse>> call_;
  v1::AppendStart start_;
  std::thread listener_;
  std::mutex mutex_;
  std::condition_variable changed_;
  v1::Ack ack_;                                                // the newest
  std::vector<std::pair<std::int64_t, std::int64_t>> on_way_;  // blocks sent up to here, bytes; not acknowledged
  std::int64_t on_way_bytes_ = 0;
  std::int64_t credit_ = 0;
  std::int64_t sent_ = 0;  // blocks
  bool over_ = false;
  bool finished_ = false;
};

// Adds a block to an extent, with its digest.
void add_block(v1::Extent& extent, std::int64_t index, std::int64_t time_ns, const void* data, std::size_t size);

// Raises unless each block of an extent has its digest.
void check_digests(const v1::Extent& extent);

}  // namespace hiss
